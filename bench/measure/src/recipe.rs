//! How a peer was set up: what is printed beside its figures, so that anybody can do it again.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::json;

/// Versions, command lines and settings of a peer, in the order in which they were used.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The peer.
    pub peer: &'static str,
    /// Its folder, which `.` stands for in everything below.
    folder: PathBuf,
    versions: Vec<String>,
    commands: Vec<String>,
    /// Names of files and what was written into them.
    settings: Vec<(String, String)>,
}

impl Recipe {
    /// One of `peer`, whose folder is `folder`.
    #[must_use]
    pub fn new(peer: &'static str, folder: &Path) -> Self {
        Self {
            peer,
            folder: folder.to_owned(),
            versions: Vec::new(),
            commands: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// The first line of what a program said of itself.
    pub fn note_version(&mut self, said: &str) {
        self.versions.extend(said.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned));
    }

    /// A command line.
    pub fn note_command(&mut self, words: &[&str]) {
        let command = self.shortened(&words.join(" "));
        // A server of several, and a mount before each row, is told once.
        if !self.commands.contains(&command) {
            self.commands.push(command);
        }
    }

    /// A file that it was started with.
    pub fn note_settings(&mut self, file: &str, text: &str) {
        let settings = (file.to_owned(), self.shortened(text));
        // One that is started anew for every row is told once.
        if !self.settings.contains(&settings) {
            self.settings.push(settings);
        }
    }

    fn shortened(&self, text: &str) -> String {
        text.replace(&*self.folder.to_string_lossy(), ".")
    }

    /// As one line of JSON.
    #[must_use]
    pub fn line(&self) -> serde_json::Value {
        let settings = self.settings.iter().map(|(file, text)| json!({"file": file, "text": text}));
        json!({
            "bench": "recipe",
            "peer": self.peer,
            "versions": self.versions,
            "commands": self.commands,
            "settings": settings.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.peer, self.versions.join("; "))?;
        for command in &self.commands {
            writeln!(f, "  $ {command}")?;
        }
        for (file, text) in &self.settings {
            writeln!(f, "  {file}:")?;
            for line in text.lines() {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_names_no_folder_of_this_machine_and_no_command_twice() {
        let mut recipe = Recipe::new("other", Path::new("/var/tmp/x/peer-other"));
        recipe.note_version("\nother 1.2 (3)\nmore\n");
        for _ in 0..2 {
            recipe.note_command(&["otherd", "-c", "/var/tmp/x/peer-other/other.conf"]);
        }
        for _ in 0..2 {
            recipe.note_settings("other.conf", "data = /var/tmp/x/peer-other/data\n");
        }
        let text = "other: other 1.2 (3)\n  $ otherd -c ./other.conf\n  other.conf:\n    data = ./data\n";
        assert_eq!(recipe.to_string(), text);
        assert_eq!(recipe.line()["commands"], json!(["otherd -c ./other.conf"]));
        assert_eq!(recipe.line()["settings"][0]["text"], "data = ./data\n");
    }
}
