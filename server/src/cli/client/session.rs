//! A session with a node: connections, the token, and what is tried again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anvil_proto::{Message, v1};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Common;
use super::profile::Profile;
use super::token_cache::TokenCache;
use crate::cli::Failure;
use crate::config::Environment;
use crate::grpc::Code;
use crate::grpc::client::{Call, CallError, Client};

/// How many parts of objects are on their way at once, each on a connection of its own: a node spreads connections over its
/// cores.
pub(super) const STREAMS: usize = 4;
/// How often something is tried again, and how long is waited before; twice as long each time.
const RETRIES: u32 = 5;
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// How long a node has to take back what could not be finished.
const CLEANUP_TIME_MAX: Duration = Duration::from_secs(5);

/// A node, as somebody.
pub(super) struct Session {
    profile: Profile,
    idle: RefCell<Vec<Client>>,
    token: RefCell<Option<Token>>,
    tokens: TokenCache,
    /// The node does not take a token that a former command left.
    was_stale: Cell<bool>,
    /// Uploads in parts that are under way, by id.
    uploads: RefCell<BTreeMap<String, (String, String)>>,
    /// A node that never answered is not asked again: its endpoint may be wrong.
    was_reached: Cell<bool>,
    /// One for each part on its way.
    pub(super) streams: Semaphore,
}

/// What says who asks.
struct Token {
    text: String,
    /// When it is old.
    until: Instant,
    /// A former command got it.
    was_kept: bool,
}

/// Does some work with a node. Ctrl-C ends it.
pub(super) fn run_session(
    common: &Common,
    work: impl AsyncFnOnce(&Session) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let environment = Environment::of_process().map_err(Failure::usage)?;
    let profile = Profile::find(common, &environment)?;
    let tokens = TokenCache::of(&profile, &environment);
    let session = Session {
        profile,
        idle: RefCell::default(),
        token: RefCell::default(),
        tokens,
        was_stale: Cell::new(false),
        uploads: RefCell::default(),
        was_reached: Cell::new(false),
        streams: Semaphore::new(STREAMS),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::run)?;
    let result = runtime.block_on(async {
        let mut interrupts = signal(SignalKind::interrupt()).map_err(Failure::run)?;
        let result = tokio::select! {
            biased;
            _ = interrupts.recv() => Err(Failure { sentence: "interrupted".to_owned(), code: 130 }),
            result = work(&session) => result,
        };
        tokio::select! {
            () = session.abort_uploads() => {}
            _ = interrupts.recv() => {}
        }
        result
    });
    // A read of a terminal has no end of its own.
    runtime.shutdown_background();
    result
}

impl Session {
    /// A way to the node, for one call at a time.
    pub(super) fn line(&self) -> Line<'_> {
        Line { session: self, client: self.idle.borrow_mut().pop() }
    }

    /// An upload is under way, and is taken back at the end unless it was finished.
    pub(super) fn upload_begins(&self, id: &str, bucket: &str, key: &str) {
        self.uploads.borrow_mut().insert(id.to_owned(), (bucket.to_owned(), key.to_owned()));
    }

    pub(super) fn upload_ends(&self, id: &str) {
        self.uploads.borrow_mut().remove(id);
    }

    /// Takes back what was not finished, as far as the node can be reached: it forgets uploads by itself in time.
    async fn abort_uploads(&self) {
        let uploads = std::mem::take(&mut *self.uploads.borrow_mut());
        let aborting = async {
            for (upload_id, (bucket_name, object_key)) in uploads {
                let request = v1::AbortMultipartUploadRequest { bucket_name, object_key, upload_id };
                let aborted: Result<v1::AbortMultipartUploadResponse, _> =
                    self.line().ask_once("ObjectService/AbortMultipartUpload", &request).await;
                if aborted.is_err() {
                    break;
                }
            }
        };
        // What failed before is the reason that is told.
        let _ = timeout(CLEANUP_TIME_MAX, aborting).await;
    }
}

/// A connection that is made when it is needed, and made again when it broke.
pub(super) struct Line<'a> {
    session: &'a Session,
    client: Option<Client>,
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.session.idle.borrow_mut().extend(self.client.take());
    }
}

impl Line<'_> {
    /// Asks once, tells why there is no answer.
    pub(super) async fn ask_once<M, R>(&mut self, method: &str, request: &M) -> Result<R, Failure>
    where
        M: Message,
        R: Message + Default,
    {
        self.exchange(method, request).await.map_err(Failure::run)
    }

    /// Asks until there is an answer, or no hope of one: for what may be asked twice.
    pub(super) async fn ask<M, R>(&mut self, method: &str, request: &M) -> Result<R, Failure>
    where
        M: Message,
        R: Message + Default,
    {
        let mut attempts = Attempts::default();
        loop {
            match self.exchange(method, request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => attempts.after(self, error.into()).await?,
            }
        }
    }

    async fn exchange<M, R>(&mut self, method: &str, request: &M) -> Result<R, CallError>
    where
        M: Message,
        R: Message + Default,
    {
        loop {
            let token = self.token().await?;
            let called = self.client().await?.call(&format!("/anvil.v1.{method}"), &token, request).await;
            let Err(error) = called else { return called };
            self.note(&error);
            if !self.session.was_stale.take() {
                return Err(error);
            }
        }
    }

    /// Begins a call whose messages stream.
    pub(super) async fn open(&mut self, method: &str) -> Result<Call, CallError> {
        let token = self.token().await?;
        let opened = self.client().await?.open(&format!("/anvil.v1.{method}"), &token).await;
        opened.inspect_err(|error| self.note(error))
    }

    /// A token for these scopes, not kept.
    pub(super) async fn token_for(&mut self, scopes: Vec<String>) -> Result<v1::GetAccessTokenResponse, CallError> {
        let Profile { client_id, client_secret, .. } = &self.session.profile;
        let request = v1::GetAccessTokenRequest {
            client_id: client_id.clone(),
            client_secret: client_secret.expose().to_owned(),
            scopes,
        };
        self.client().await?.call("/anvil.v1.AuthService/GetAccessToken", "", &request).await
    }

    /// The session's token, or that of a former command; got anew before it is old.
    async fn token(&mut self) -> Result<String, CallError> {
        let session = self.session;
        let now = Instant::now();
        let known = session.token.borrow().as_ref().filter(|token| now < token.until).map(|token| token.text.clone());
        if let Some(known) = known {
            return Ok(known);
        }
        let kept = session.tokens.read();
        let was_kept = kept.is_some();
        let (text, good_for) = match kept {
            Some(kept) => kept,
            None => {
                let answer = self.token_for(Vec::new()).await?;
                let good_for = Duration::from_secs(u64::from(answer.expires_in)) / 2;
                session.tokens.keep(&answer.access_token, good_for);
                (answer.access_token, good_for)
            }
        };
        session.token.replace(Some(Token { text: text.clone(), until: now + good_for, was_kept }));
        Ok(text)
    }

    async fn client(&mut self) -> Result<&mut Client, CallError> {
        if self.client.is_none() {
            let Profile { endpoint, ca_file, .. } = &self.session.profile;
            self.client = Some(Client::connect(endpoint.clone(), ca_file.as_deref()).await?);
            self.session.was_reached.set(true);
        }
        Ok(self.client.as_mut().expect("made above"))
    }

    /// What an error says of the connection and the token.
    fn note(&mut self, error: &CallError) {
        match error {
            CallError::Unreachable { .. } => self.client = None,
            CallError::Refused { code: Code::Unauthenticated, .. } => {
                let token = self.session.token.take();
                self.session.tokens.forget();
                self.session.was_stale.set(token.is_some_and(|token| token.was_kept));
            }
            _ => {}
        }
    }
}

/// Why something did not come about.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The node's, or the way's: another attempt may help.
    Call(CallError),
    /// Ours.
    Own(Failure),
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Own(failure)
    }
}

/// What is left of patience.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    made: u32,
}

impl Attempts {
    /// Waits before another attempt.
    ///
    /// # Errors
    /// When there is none, or it would not help.
    pub(super) async fn after(&mut self, line: &mut Line<'_>, trouble: Trouble) -> Result<(), Failure> {
        let error = match trouble {
            Trouble::Call(error) => error,
            Trouble::Own(failure) => return Err(failure),
        };
        line.note(&error);
        if line.session.was_stale.take() {
            return Ok(());
        }
        if self.made == RETRIES || !may_pass(&error, line.session.was_reached.get()) {
            return Err(Failure::run(error));
        }
        sleep(RETRY_DELAY * 2_u32.pow(self.made)).await;
        self.made += 1;
        Ok(())
    }

    /// There was progress: patience begins anew.
    pub(super) fn renew(&mut self) {
        self.made = 0;
    }
}

/// Whether an error may be gone when it is tried again.
fn may_pass(error: &CallError, was_reached: bool) -> bool {
    match error {
        CallError::Unreachable { .. } => was_reached,
        CallError::Refused { code, reason, .. } => {
            // NO_KEY waits for an operator.
            (*code == Code::Unavailable && reason != "NO_KEY") || PASSING_REASONS.contains(&reason.as_str())
        }
        CallError::Endpoint(_) => false,
    }
}

/// Of refusals whose code alone does not say so.
const PASSING_REASONS: &[&str] =
    &["TOKEN_EXPIRED", "OUTCOME_UNKNOWN", "CONFIGURATION_CHANGED", "CONFLICT", "TOO_OFTEN"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again() {
        let refused =
            |code, reason: &str| CallError::Refused { code, reason: reason.to_owned(), message: String::new() };
        let away = CallError::Unreachable { endpoint: String::new(), what: String::new() };
        assert!(may_pass(&away, true) && !may_pass(&away, false));
        assert!(may_pass(&refused(Code::Unavailable, "BUSY"), true));
        assert!(may_pass(&refused(Code::Unauthenticated, "TOKEN_EXPIRED"), true));
        for wrong in [
            refused(Code::Unavailable, "NO_KEY"),
            refused(Code::NotFound, "NO_SUCH_BUCKET"),
            refused(Code::Unauthenticated, "CREDENTIALS_WRONG"),
        ] {
            assert!(!may_pass(&wrong, true), "{wrong:?}");
        }
    }
}
