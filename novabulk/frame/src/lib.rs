//! The 16-byte frame header and the control headers: encode and decode.
