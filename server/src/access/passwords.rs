//! Passwords of administrators, hashed and compared on a thread of their own: either costs a core some 20 ms and 19 MiB, on
//! purpose, which nobody else shall wait for.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anvil_model::access::PasswordHash;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash as Phc;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::oneshot;

/// The way to the thread, for all cores. The thread ends with it.
#[derive(Debug)]
pub struct Passwords {
    jobs: SyncSender<Job>,
}

/// What can be wrong with a password, or why it was not looked at. Each text is one sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum PasswordError {
    #[error("a password has {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes")]
    Length,
    #[error("too many log in at once: try again")]
    Busy,
}

enum Job {
    Hash(String, oneshot::Sender<PasswordHash>),
    Check(String, Option<PasswordHash>, oneshot::Sender<bool>),
}

/// NIST SP 800-63B, 5.1.1.2, asks for 8 at least.
const PASSWORD_BYTES_MIN: usize = 8;
/// Long sentences fit.
const PASSWORD_BYTES_MAX: usize = 256;
/// Who finds so many waiting comes again.
const QUEUE: usize = 16;

impl Passwords {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn start() -> io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE);
        std::thread::Builder::new().name("passwords".to_owned()).spawn(move || work(&queue))?;
        Ok(Self { jobs })
    }

    /// What is kept of a new password.
    ///
    /// # Errors
    /// When it is too short or too long, or too many wait.
    pub async fn hash(&self, password: String) -> Result<PasswordHash, PasswordError> {
        if !(PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&password.len()) {
            return Err(PasswordError::Length);
        }
        let (reply, answer) = oneshot::channel();
        self.send(Job::Hash(password, reply))?;
        answer.await.map_err(|_| PasswordError::Busy)
    }

    /// Whether it is the password that this was kept of. Without one it is not, which takes as long to find out: nobody
    /// learns who is a user.
    ///
    /// # Errors
    /// When too many wait.
    pub async fn check(&self, password: String, kept: Option<PasswordHash>) -> Result<bool, PasswordError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let (reply, answer) = oneshot::channel();
        self.send(Job::Check(password, kept, reply))?;
        answer.await.map_err(|_| PasswordError::Busy)
    }

    fn send(&self, job: Job) -> Result<(), PasswordError> {
        self.jobs.try_send(job).map_err(|_| PasswordError::Busy)
    }
}

fn work(queue: &Receiver<Job>) {
    // Argon2id with 19 MiB, 2 passes and one lane: the second choice of OWASP, and the default of the crate.
    let argon2 = Argon2::default();
    let nobody = hash(&argon2, "nobody has this password");
    while let Ok(job) = queue.recv() {
        // Who asked may be gone.
        match job {
            Job::Hash(password, reply) => drop(reply.send(hash(&argon2, &password))),
            Job::Check(password, kept, reply) => {
                let is_there = kept.is_some();
                let kept = kept.unwrap_or_else(|| nobody.clone());
                let fits =
                    Phc::new(&kept.0).is_ok_and(|kept| argon2.verify_password(password.as_bytes(), &kept).is_ok());
                let _ = reply.send(fits && is_there);
            }
        }
    }
}

fn hash(argon2: &Argon2<'_>, password: &str) -> PasswordHash {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).expect("the kernel gives random bytes");
    let hashed = argon2.hash_password_with_salt(password.as_bytes(), &salt);
    PasswordHash(hashed.expect("the parameters are sound and the salt is long enough").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_kept_by_nobody() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let passwords = Passwords::start().unwrap();
            let kept = passwords.hash("correct horse".to_owned()).await.unwrap();
            let again = passwords.hash("correct horse".to_owned()).await.unwrap();
            assert!(kept.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", kept.0);
            assert_ne!(kept, again, "each has its own salt");
            let check = async |password: &str, kept: Option<&PasswordHash>| {
                passwords.check(password.to_owned(), kept.cloned()).await.unwrap()
            };
            assert!(check("correct horse", Some(&kept)).await && check("correct horse", Some(&again)).await);
            assert!(!check("Correct horse", Some(&kept)).await && !check("", Some(&kept)).await);
            assert!(!check("correct horse", None).await && !check("nobody has this password", None).await);
            assert!(!check("correct horse", Some(&PasswordHash("damaged".to_owned()))).await);
            for wrong in ["short", &"x".repeat(257)] {
                assert_eq!(passwords.hash(wrong.to_owned()).await, Err(PasswordError::Length));
            }
            assert!(!check(&"x".repeat(1 << 20), Some(&kept)).await);
        });
    }
}
