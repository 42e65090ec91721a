//! Records on disk and how a unit is sealed: encode and decode.
