//! What each hook passes to a policy and takes from it.

use std::time::Duration;

use domain::{Choice, Denial, Hook, Purpose, RetentionVerdict, RetryVerdict};
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use crate::bindings::exports::offloader::policy as exports;
use crate::bindings::offloader::policy::types;
use crate::chain::{Said, Verdict};
use crate::failure::Failure;
use crate::guest::Guest;

/// Bytes that the texts of an answer may have, as the contract says.
const REASON_MAX: usize = 1024;
const CODE_MAX: usize = 64;
const IMAGE_MAX: usize = 512;
const URL_MAX: usize = 2048;
const KEY_MAX: usize = 256;
const PROBLEMS_MAX: usize = 100;

/// The hooks that a component exports, looked up once.
pub(crate) struct Exports {
    image_selection: Option<exports::image_selection::GuestIndices>,
    site_url: Option<exports::site_url::GuestIndices>,
    retry: Option<exports::retry::GuestIndices>,
    retention: Option<exports::retention::GuestIndices>,
    settings_check: Option<exports::settings_check::GuestIndices>,
}

/// An export that has the name of a hook and not its type.
#[derive(Debug)]
pub(crate) struct WrongExport {
    pub(crate) interface: &'static str,
    pub(crate) detail: String,
}

/// The name under which the contract exports an interface.
fn export_name(interface: &str) -> String {
    format!(
        "offloader:policy/{interface}@{}",
        crate::load::CONTRACT_VERSION
    )
}

impl Exports {
    /// Finds the hooks of a component.
    pub(crate) fn find(pre: &InstancePre<Guest>) -> Result<Self, WrongExport> {
        fn find<T>(
            pre: &InstancePre<Guest>,
            interface: &'static str,
            indices: impl FnOnce(&InstancePre<Guest>) -> wasmtime::Result<T>,
        ) -> Result<Option<T>, WrongExport> {
            if pre
                .component()
                .get_export_index(None, export_name(interface))
                .is_none()
            {
                return Ok(None);
            }
            indices(pre).map(Some).map_err(|error| WrongExport {
                interface,
                detail: error.root_cause().to_string(),
            })
        }
        Ok(Self {
            image_selection: find(
                pre,
                "image-selection",
                exports::image_selection::GuestIndices::new,
            )?,
            site_url: find(pre, "site-url", exports::site_url::GuestIndices::new)?,
            retry: find(pre, "retry", exports::retry::GuestIndices::new)?,
            retention: find(pre, "retention", exports::retention::GuestIndices::new)?,
            settings_check: find(
                pre,
                "settings-check",
                exports::settings_check::GuestIndices::new,
            )?,
        })
    }

    pub(crate) fn hooks(&self) -> Vec<Hook> {
        let exported = [
            (Hook::ImageSelection, self.image_selection.is_some()),
            (Hook::SiteUrl, self.site_url.is_some()),
            (Hook::Retry, self.retry.is_some()),
            (Hook::Retention, self.retention.is_some()),
        ];
        exported
            .into_iter()
            .filter(|(_, exported)| *exported)
            .map(|(hook, _)| hook)
            .collect()
    }

    /// Compares the types of the exported functions with the contract's, on an instance.
    pub(crate) fn check_types(
        &self,
        store: &mut Store<Guest>,
        instance: &Instance,
    ) -> Result<(), WrongExport> {
        macro_rules! check {
            ($($field:ident $interface:literal),+) => {$(
                if let Some(Err(error)) = self.$field.as_ref().map(|i| i.load(&mut *store, instance)) {
                    let detail = error.root_cause().to_string();
                    return Err(WrongExport { interface: $interface, detail });
                }
            )+};
        }
        check!(
            image_selection "image-selection", site_url "site-url", retry "retry",
            retention "retention", settings_check "settings-check"
        );
        Ok(())
    }

    /// What a policy has against its settings, as key and message.
    pub(crate) fn check_settings(
        &self,
        store: &mut Store<Guest>,
        instance: &Instance,
    ) -> Result<Vec<(String, String)>, Failure> {
        let Some(indices) = &self.settings_check else {
            return Ok(Vec::new());
        };
        let problems = indices
            .load(&mut *store, instance)
            .and_then(|guest| guest.call_check_settings(&mut *store))
            .map_err(|error| Failure::of_call(&error))?;
        if problems.len() > PROBLEMS_MAX {
            return Err(Failure::OutputMalformed(format!(
                "{} problems",
                problems.len()
            )));
        }
        let bytes = problems.iter().map(|p| p.key.len() + p.message.len());
        store.data().check_answer(bytes.sum())?;
        problems
            .into_iter()
            .map(|problem| {
                let key = short("the key of a setting", problem.key, KEY_MAX)?;
                Ok((
                    key,
                    short("the problem of a setting", problem.message, REASON_MAX)?,
                ))
            })
            .collect()
    }
}

/// The interfaces that the contract exports, by their names.
pub(crate) fn is_exported_interface(name: &str) -> bool {
    name == "settings-check" || Hook::ALL.iter().any(|hook| hook.as_str() == name)
}

/// One of the hooks, with what is passed beside the job.
pub(crate) trait Question: Copy + Send + 'static {
    type Verdict: Verdict;
    const HOOK: Hook;

    /// Puts the question to an instance.
    fn put(
        self,
        exports: &Exports,
        store: &mut Store<Guest>,
        instance: &Instance,
    ) -> Result<Said<Self::Verdict>, Failure>;
}

macro_rules! call {
    ($exports:ident.$hook:ident, $store:ident, $instance:ident, $call:ident $(, $argument:expr)?) => {{
        let indices = $exports.$hook.as_ref().expect("policies are asked what they export");
        indices
            .load(&mut *$store, $instance)
            .and_then(|guest| guest.$call(&mut *$store, Guest::job() $(, $argument)?))
            .map_err(|error| Failure::of_call(&error))?
    }};
}

/// Which image an attempt uses.
#[derive(Clone, Copy)]
pub(crate) struct ImageSelection(pub(crate) Purpose);

impl Question for ImageSelection {
    type Verdict = Choice;
    const HOOK: Hook = Hook::ImageSelection;

    fn put(
        self,
        exports: &Exports,
        store: &mut Store<Guest>,
        instance: &Instance,
    ) -> Result<Said<Choice>, Failure> {
        use exports::image_selection::{Purpose as Asked, Verdict};
        let purpose = match self.0 {
            Purpose::Start => Asked::Start,
            Purpose::Prefetch => Asked::Prefetch,
        };
        match call!(
            exports.image_selection,
            store,
            instance,
            call_select_image,
            purpose
        ) {
            Verdict::Pass => pass(),
            Verdict::Use(choice) => chosen("the image", choice.image, IMAGE_MAX, choice.reason),
            Verdict::Deny(denial) => denied(denial),
        }
    }
}

/// Under which URL the job reaches its site.
#[derive(Clone, Copy)]
pub(crate) struct SiteUrl;

impl Question for SiteUrl {
    type Verdict = Choice;
    const HOOK: Hook = Hook::SiteUrl;

    fn put(
        self,
        exports: &Exports,
        store: &mut Store<Guest>,
        instance: &Instance,
    ) -> Result<Said<Choice>, Failure> {
        use exports::site_url::Verdict;
        match call!(exports.site_url, store, instance, call_select_site_url) {
            Verdict::Pass => pass(),
            Verdict::Use(choice) => chosen("the URL", choice.url, URL_MAX, choice.reason),
            Verdict::Deny(denial) => denied(denial),
        }
    }
}

/// Whether another attempt follows a failed one.
#[derive(Clone, Copy)]
pub(crate) struct Retry;

impl Question for Retry {
    type Verdict = RetryVerdict;
    const HOOK: Hook = Hook::Retry;

    fn put(
        self,
        exports: &Exports,
        store: &mut Store<Guest>,
        instance: &Instance,
    ) -> Result<Said<RetryVerdict>, Failure> {
        use exports::retry::Verdict;
        match call!(exports.retry, store, instance, call_decide_retry) {
            Verdict::Pass => pass(),
            Verdict::GiveUp(reason) => said(RetryVerdict::GiveUp, reason),
            Verdict::Retry(again) => said(
                RetryVerdict::RetryAfter(Duration::from_millis(again.after)),
                again.reason,
            ),
        }
    }
}

/// What happens to the data of an ended job.
#[derive(Clone, Copy)]
pub(crate) struct Retention;

impl Question for Retention {
    type Verdict = RetentionVerdict;
    const HOOK: Hook = Hook::Retention;

    fn put(
        self,
        exports: &Exports,
        store: &mut Store<Guest>,
        instance: &Instance,
    ) -> Result<Said<RetentionVerdict>, Failure> {
        use exports::retention::Verdict;
        match call!(exports.retention, store, instance, call_decide_retention) {
            Verdict::Pass => pass(),
            Verdict::Delete(reason) => said(RetentionVerdict::Delete, reason),
            Verdict::KeepFor(period) => said(
                RetentionVerdict::KeepFor(Duration::from_millis(period.duration)),
                period.reason,
            ),
            Verdict::Keep(reason) => said(RetentionVerdict::Keep, reason),
        }
    }
}

fn pass<V: Verdict>() -> Result<Said<V>, Failure> {
    Ok(Said {
        verdict: V::PASS,
        reason: None,
    })
}

fn said<V>(verdict: V, reason: Option<String>) -> Result<Said<V>, Failure> {
    let reason = reason
        .map(|reason| short("the reason", reason, REASON_MAX))
        .transpose()?;
    Ok(Said { verdict, reason })
}

fn chosen(
    what: &'static str,
    text: String,
    max: usize,
    reason: Option<String>,
) -> Result<Said<Choice>, Failure> {
    said(Choice::Use(present(what, text, max)?), reason)
}

fn denied(denial: types::Denial) -> Result<Said<Choice>, Failure> {
    let code = present("the denial's code", denial.code, CODE_MAX)?;
    let message = present("the denial's message", denial.message, REASON_MAX)?;
    said(Choice::Deny(Denial { code, message }), None)
}

fn short(what: &'static str, text: String, limit: usize) -> Result<String, Failure> {
    match text.len() {
        bytes if bytes > limit => Err(Failure::OutputTooLarge { what, bytes, limit }),
        _ => Ok(text),
    }
}

fn present(what: &'static str, text: String, limit: usize) -> Result<String, Failure> {
    if text.is_empty() {
        return Err(Failure::OutputMalformed(format!("{what} is empty")));
    }
    short(what, text, limit)
}
