//! Where a program is to run: on this machine as it is, or in a network namespace of its own.

use std::{ffi::OsStr, process::Command};

/// What a program's command begins with, so that it runs where it should. The default is here.
#[derive(Debug, Clone, Default)]
pub struct Within {
    /// Words that end by executing those that follow them, as `nsenter --target 7 --net` does.
    pub words: Vec<String>,
    /// Who the program is there, where that is not who it is here.
    pub user: Option<String>,
}

impl Within {
    /// `program`, there.
    pub fn command(&self, program: &OsStr) -> Command {
        let Some((first, rest)) = self.words.split_first() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }
}
