//! The tree on its way in and on its way out.

use std::ffi::OsString;
use std::fs;

use anyhow::{Context, Result};

use super::{Demo, TARGET, Tree, transfer_timeout};
use crate::answer;
use crate::compare::{Pair, compare};
use crate::input::{Input, SourceFile};
use crate::table::{Transfer, grouped};

impl Demo {
    /// Puts the whole input, and measures it.
    pub(super) fn put_tree(&mut self) -> Result<()> {
        self.region.refresh()?;
        let files = self.input.files.clone();
        let arguments = self.prepare_put("", &files)?;
        let before = self.region.processor_time()?;
        let limit = transfer_timeout(self.input.bytes());
        let finished = self.region.nova().call(&arguments).limit(limit).visible().run()?;
        let processor = self.region.processor_time()?.saturating_sub(before) + finished.processor;
        let answer: answer::Put = finished.answer()?;
        self.check_put(&answer, &files);
        self.trees.push(Tree { folder: String::new(), files });
        let put = Transfer { bytes: answer.bytes, took: finished.took, processor };
        println!(
            "put {} files, {:.1} MB/s, {:.2} CPU seconds per GB; longest stall {} ms, {} retries",
            grouped(answer.files),
            put.rate() / 1e6,
            put.processor_per_gb(),
            answer.stall_ms_max,
            answer.retries,
        );
        self.figures.skipped += answer.skipped;
        self.figures.put = Some(put);
        Ok(())
    }

    /// Makes the folder of [`TARGET`] and the list of files; answers the arguments of the put.
    pub(super) fn prepare_put(&self, folder: &str, files: &[SourceFile]) -> Result<Vec<OsString>> {
        let target = if folder.is_empty() { TARGET.to_owned() } else { format!("{TARGET}/{folder}") };
        self.region.nova().call(["fs", "mkdir", "-p", &target]).run()?;
        let list = self.work.path.join(format!("put-{folder}.list"));
        Input::write_list(files, &list)?;
        let mut arguments: Vec<OsString> = ["fs", "put", "--files-from"].map(OsString::from).into();
        arguments.extend([list.into_os_string(), "--base".into(), self.input.base.clone().into_os_string()]);
        arguments.push(target.into());
        Ok(arguments)
    }

    /// Notes when a put did not take every file whole.
    pub(super) fn check_put(&mut self, answer: &answer::Put, files: &[SourceFile]) {
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        if answer.files != files.len() as u64 || answer.bytes != bytes {
            self.wrong(format!(
                "put took {} files with {} bytes of {} files with {bytes} bytes; did the source change meanwhile?",
                answer.files,
                answer.bytes,
                files.len(),
            ));
        }
    }

    /// Reads everything back and compares every file with its source.
    pub(super) fn get_and_compare(&mut self) -> Result<()> {
        let target = self.work.path.join("read-back");
        fs::create_dir(&target).context("create the folder to read back into")?;
        self.region.refresh()?;
        let before = self.region.processor_time()?;
        let bytes = self.expected().map(|(_, _, bytes)| bytes).sum();
        let arguments = [OsString::from("fs"), "get".into(), TARGET.into(), target.clone().into_os_string()];
        let finished = self.region.nova().call(&arguments).limit(transfer_timeout(bytes)).visible().run()?;
        let processor = self.region.processor_time()?.saturating_sub(before) + finished.processor;
        let answer: answer::Get = finished.answer()?;
        let get = Transfer { bytes: answer.bytes, took: finished.took, processor };
        println!(
            "got {} files, {:.1} MB/s, {:.2} CPU seconds per GB",
            grouped(answer.files),
            get.rate() / 1e6,
            get.processor_per_gb(),
        );
        self.figures.get = Some(get);

        // A source goes into its target.
        let root = target.join(TARGET.trim_start_matches('/'));
        let pairs: Vec<Pair> =
            self.expected().map(|(name, source, _)| Pair { source, copy: root.join(name) }).collect();
        let found = compare(&pairs, self.region.nova().interrupt())?;
        println!(
            "{} of {} files have the SHA-256 of their source",
            grouped(found.verified),
            grouped(pairs.len() as u64)
        );
        self.figures.verified = Some(found.verified);
        self.figures.read_back = Some(pairs.len() as u64);
        if answer.files != pairs.len() as u64 {
            self.wrong(format!("get wrote {} files; {} were put", answer.files, pairs.len()));
        }
        if found.different > 0 {
            self.wrong(format!("{} files differ: {}", found.different, found.described.join("; ")));
        }
        fs::remove_dir_all(&target).context("remove what was read back")?;
        Ok(())
    }
}
