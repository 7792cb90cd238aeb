//! Programs for the tests and the examples whose Go sources are in a folder of `xtask`: built once per user.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::control_plane::{find_go, go_command, user_cache};
use crate::test::workspace;

/// A program by the name of its folder.
pub(super) struct GoProgram {
    pub(super) name: &'static str,
    /// Build tags, separated by commas.
    pub(super) tags: &'static str,
}

impl GoProgram {
    /// The program of the present sources, when it has been built.
    pub(super) fn find(&self) -> Result<Option<PathBuf>> {
        let program = self.cached()?;
        Ok(program.is_file().then_some(program))
    }

    /// The program of the present sources, from the per-user cache or built into it. A second caller waits for the first.
    pub(super) fn provide(&self) -> Result<PathBuf> {
        let program = self.cached()?;
        let folder = program.parent().context("the cache folder has a parent")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let lock = File::create(folder.join("lock"))?;
        lock.lock().with_context(|| format!("cannot lock the cache of {}", self.name))?;
        if program.is_file() {
            return Ok(program);
        }
        let go = find_go().with_context(|| format!("{} is a Go program", self.name))?;
        eprintln!("building {} once ...", self.name);
        let sources = self.sources();
        let partial = program.with_added_extension("partial");
        let status = go_command(&go, &sources)
            .args([
                "build",
                "-mod=readonly",
                "-trimpath",
                "-buildvcs=false",
                "-ldflags=-s -w",
                "-tags",
                self.tags,
                "-o",
            ])
            .arg(&partial)
            .arg(".")
            .status()
            .with_context(|| format!("cannot run {}", go.display()))?;
        ensure!(status.success(), "go build of {} failed: {status}", sources.display());
        fs::rename(&partial, &program)?;
        self.remove_others(&program)?;
        Ok(program)
    }

    /// Those of older sources are of no use any more.
    fn remove_others(&self, program: &Path) -> Result<()> {
        let folder = program.parent().context("the cache folder has a parent")?;
        for entry in fs::read_dir(folder)?.flatten() {
            let path = entry.path();
            if path != program && entry.file_name().to_string_lossy().starts_with(self.name) {
                fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn cached(&self) -> Result<PathBuf> {
        let file = format!("{}-{:016x}", self.name, self.fingerprint()?);
        Ok(user_cache()?.join(self.name).join(file))
    }

    fn sources(&self) -> PathBuf {
        workspace().join("xtask").join(self.name)
    }

    /// Changes with every source file.
    fn fingerprint(&self) -> Result<u64> {
        let sources = self.sources();
        let read = || -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
            let paths: io::Result<Vec<_>> = fs::read_dir(&sources)?.map(|entry| Ok(entry?.path())).collect();
            let mut files: Vec<_> =
                paths?.into_iter().map(|path| Ok((path.clone(), fs::read(path)?))).collect::<io::Result<_>>()?;
            files.sort();
            Ok(files)
        };
        let files = read().with_context(|| format!("cannot read {}", sources.display()))?;
        let mut hasher = DefaultHasher::new();
        self.tags.hash(&mut hasher);
        for (path, content) in files {
            (path.file_name(), content).hash(&mut hasher);
        }
        Ok(hasher.finish())
    }
}
