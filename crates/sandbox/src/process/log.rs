//! The log of a container: bounded, and for its user's eyes alone.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidemark_clock::Clock;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_util::task::AbortOnDropHandle;

use super::journal::Journal;

/// Bytes of a log after which it is put aside, as the kubelet has it.
const LIMIT: u64 = 10 * 1024 * 1024;
/// Bytes that are read at a time: what a pipe holds.
const CHUNK: usize = 64 * 1024;
/// What a group has written is in the pipe when the group has ended. A process that has left its group can hold the pipe
/// open; it is not waited for.
const REST: Duration = Duration::from_secs(2);

/// Makes a folder, with those above it, that nobody else can look into.
pub(super) fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Takes others' access from a folder that may have been there before.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    private_folder(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// A file of two generations: `x.log`, and `x.log.1` with what was before.
struct Log {
    journal: Arc<Journal>,
    clock: Clock,
    file: File,
    size: u64,
    limit: u64,
}

impl Log {
    /// Opens the log for another run.
    async fn open(journal: Arc<Journal>, clock: Clock, limit: u64) -> io::Result<Self> {
        if let Some(folder) = journal.path().parent() {
            private_folder(folder)?;
        }
        let file = append_to(journal.path()).await?;
        let size = file.metadata().await?.len();
        journal.begin(size);
        Ok(Self { journal, clock, file, size, limit })
    }

    /// Appends output, which is cut between two lines where it exceeds the limit.
    async fn write(&mut self, output: &[u8]) -> io::Result<()> {
        let room = usize::try_from(self.limit.saturating_sub(self.size)).unwrap_or(usize::MAX);
        let Some(fitting) = output.get(..room).filter(|fitting| fitting.len() < output.len()) else {
            return self.append(output).await;
        };
        let cut = fitting.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.append(&output[..cut]).await?;
        self.turn_over().await?;
        self.append(&output[cut..]).await
    }

    async fn append(&mut self, output: &[u8]) -> io::Result<()> {
        let outcome = match self.file.write_all(output).await {
            // The write itself happens elsewhere: only now is its outcome known.
            Ok(()) => self.file.flush().await,
            failed => failed,
        };
        let written = match &outcome {
            Ok(()) => output.len() as u64,
            // A part of it may be there.
            Err(_) => self.file.metadata().await.map_or(0, |file| file.len().saturating_sub(self.size)),
        };
        self.size += written;
        if written > 0 {
            self.journal.wrote(written, self.clock.now());
        }
        outcome
    }

    async fn turn_over(&mut self) -> io::Result<()> {
        self.journal.turn_over()?;
        self.file = append_to(self.journal.path()).await?;
        self.size = 0;
        Ok(())
    }
}

async fn append_to(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(path).await
}

/// A log into which output flows from a pipe.
pub(super) struct Flow {
    journal: Arc<Journal>,
    pump: AbortOnDropHandle<()>,
}

impl Flow {
    /// Opens the log for the output that `connect` gives once the log is there.
    pub(super) async fn start<R, T>(
        journal: &Arc<Journal>,
        clock: Clock,
        connect: impl FnOnce() -> io::Result<(R, T)>,
    ) -> io::Result<(Self, T)>
    where
        R: AsyncRead + Unpin + Send + 'static,
    {
        let opened = Log::open(journal.clone(), clock, LIMIT).await;
        let log = opened
            .map_err(|error| io::Error::new(error.kind(), format!("log {}: {error}", journal.path().display())))?;
        let (output, rest) = connect()?;
        let pump = AbortOnDropHandle::new(tokio::spawn(pump(output, log)));
        Ok((Self { journal: journal.clone(), pump }, rest))
    }

    /// Waits for the last output of a group that has ended.
    pub(super) async fn end(self) {
        // Dropping the handle stops a flow that does not end.
        let _ = tokio::time::timeout(REST, self.pump).await;
        self.journal.end();
    }
}

/// Writes until the pipe ends. Output for which there is no place is lost: a container must not hang on a full disk.
async fn pump(mut output: impl AsyncRead + Unpin, mut log: Log) {
    let mut chunk = vec![0; CHUNK];
    let mut told = false;
    while let Ok(read @ 1..) = output.read(&mut chunk).await {
        if let Err(error) = log.write(&chunk[..read]).await
            && !std::mem::replace(&mut told, true)
        {
            tracing::warn!(log = %log.journal.path().display(), %error, "output of a container is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_log_is_put_aside_between_two_lines() {
        let folder = std::env::temp_dir().join(format!("tidemark-log-{}", std::process::id()));
        let path = folder.join("main.log");
        let journal = Arc::new(Journal::new(path.clone()));
        let mut log = Log::open(journal, Clock::system(), 10).await.unwrap();
        for output in ["one\ntwo\n", "three\nfour\n", "five\n", "a line that is longer than the limit\n"] {
            log.write(output.as_bytes()).await.unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(read("main.log.1"), "five\n");
        assert_eq!(read("main.log"), "a line that is longer than the limit\n");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
