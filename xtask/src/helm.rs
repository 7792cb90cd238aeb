//! Where helm comes from: one build per user from the published Go module.

use std::env;
use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::control_plane::{find_go, go_command, user_cache};

/// The helm release to build.
pub const HELM_VERSION: &str = "3.21.4";

/// The helm to use, when there is one: the one that `TIDEMARK_TEST_HELM` names, else that of the per-user cache.
///
/// # Errors
/// When the variable names no file, or no home directory is known.
pub fn find() -> Result<Option<PathBuf>> {
    if let Some(named) = env::var_os("TIDEMARK_TEST_HELM").filter(|named| !named.is_empty()) {
        let program = PathBuf::from(named);
        ensure!(program.is_file(), "TIDEMARK_TEST_HELM is set to {}, which is no file", program.display());
        return Ok(Some(program));
    }
    let program = cached()?;
    Ok(program.is_file().then_some(program))
}

/// The helm to use, built first when there is none, which takes a minute or two. A second caller waits for the first.
///
/// # Errors
/// Those of [`find`]; no Go toolchain; a module that cannot be downloaded or built.
pub fn provide() -> Result<PathBuf> {
    if let Some(program) = find()? {
        return Ok(program);
    }
    let program = cached()?;
    let folder = program.parent().context("the cache folder has a parent")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock().context("cannot lock helm's cache")?;
    if program.is_file() {
        return Ok(program);
    }
    let go = find_go().context("helm for the tests is built with it")?;
    eprintln!("building helm {HELM_VERSION} once ...");
    let work = folder.join("build");
    fs::create_dir_all(&work)?;
    let module = format!("module tidemark.dev/helm\n\ngo 1.26.0\n\nrequire helm.sh/helm/v3 v{HELM_VERSION}\n");
    fs::write(work.join("go.mod"), module)?;
    let partial = program.with_added_extension("partial");
    let status = go_command(&go, &work)
        .args(["build", "-mod=mod", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"])
        .arg(&partial)
        .arg("helm.sh/helm/v3/cmd/helm")
        .status()
        .with_context(|| format!("cannot run {}", go.display()))?;
    ensure!(status.success(), "go build of helm failed: {status}");
    fs::rename(&partial, &program).with_context(|| format!("cannot rename {}", partial.display()))?;
    Ok(program)
}

fn cached() -> Result<PathBuf> {
    Ok(user_cache()?.join("helm").join(format!("helm-{HELM_VERSION}")))
}
