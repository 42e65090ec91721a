//! A file as another program has it mapped: shared, written through memory, and synced by `msync`.
//!
//! A mapping needs unsafe code, so it is made by a program of a few lines of C that this builds.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The program that maps, built in `folder`.
pub(crate) fn build(folder: &Path) -> PathBuf {
    let (source, program) = (folder.join("mapped.c"), folder.join("mapped"));
    std::fs::write(&source, include_str!("../../testdata/mapped.c")).unwrap();
    let built = Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(&source).output().unwrap();
    assert!(built.status.success(), "cc: {}", String::from_utf8_lossy(&built.stderr));
    program
}

/// A mapping of one file, until it is dropped.
#[derive(Debug)]
pub(crate) struct MappedFile {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl MappedFile {
    /// Has `program` map the first `bytes` of the file at `path`, also those that are not there yet.
    pub(crate) fn start(program: &Path, path: &Path, bytes: usize) -> Self {
        let mut child = Command::new(program)
            .arg(path)
            .arg(bytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let requests = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, requests, answers }
    }

    /// Bytes through the mapping. They must be inside the file.
    pub(crate) fn read(&mut self, offset: usize, bytes: usize) -> Result<Vec<u8>, String> {
        self.ask('R', offset, bytes, &[])?;
        let mut found = vec![0; bytes];
        self.answers.read_exact(&mut found).map_err(|error| format!("read a mapping: {error}"))?;
        Ok(found)
    }

    /// Puts bytes through the mapping. They must be inside the file.
    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) -> Result<(), String> {
        self.ask('W', offset, data.len(), data)
    }

    /// Has what was put be written, and waits for it.
    pub(crate) fn sync(&mut self, offset: usize, bytes: usize) -> Result<(), String> {
        self.ask('S', offset, bytes, &[])
    }

    /// Gives the mapping up and makes another.
    pub(crate) fn map_again(&mut self) -> Result<(), String> {
        self.ask('M', 0, 0, &[])
    }

    fn ask(&mut self, what: char, offset: usize, data_bytes: usize, data: &[u8]) -> Result<(), String> {
        let mut answer = String::new();
        let asked = writeln!(self.requests, "{what} {offset} {data_bytes}")
            .and_then(|()| self.requests.write_all(data))
            .and_then(|()| self.answers.read_line(&mut answer));
        match answer.trim_end().parse() {
            Ok(0) => Ok(()),
            Ok(number) => Err(std::io::Error::from_raw_os_error(number).to_string()),
            Err(_) => Err(format!("the program that maps ended: {:?}, {asked:?}", self.child.wait())),
        }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
