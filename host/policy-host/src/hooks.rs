//! What each hook passes to a policy and takes from it.

use std::marker::PhantomData;
use std::time::Duration;

use domain::{Choice, Denial, Hook, Purpose, RetentionVerdict, RetryVerdict};
use wasmtime::Store;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, Instance, Lift, Lower, Resource, TypedFunc,
};

use crate::bindings::JobHandle;
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

/// A function that a component exports, looked up once.
pub(crate) struct Function<P, R> {
    interface: &'static str,
    index: ComponentExportIndex,
    types: PhantomData<fn(P) -> R>,
}

/// An export that has the name of a hook and not its type.
#[derive(Debug)]
pub(crate) struct WrongExport {
    pub(crate) interface: &'static str,
    pub(crate) detail: String,
}

impl<P, R> Function<P, R>
where
    P: ComponentNamedList + Lower,
    R: ComponentNamedList + Lift,
{
    /// The function of an interface of the contract; `None` when the component does not export that.
    fn find(
        component: &Component,
        interface: &'static str,
        name: &str,
    ) -> Result<Option<Self>, WrongExport> {
        let export = format!(
            "offloader:policy/{interface}@{}",
            crate::load::CONTRACT_VERSION
        );
        let Some(instance) = component.get_export_index(None, export) else {
            return Ok(None);
        };
        let function = component.get_export_index(Some(&instance), name);
        let index = function.ok_or_else(|| WrongExport {
            interface,
            detail: format!("it has no {name}"),
        })?;
        Ok(Some(Self {
            interface,
            index,
            types: PhantomData,
        }))
    }

    /// The function of an instance.
    ///
    /// # Errors
    /// When it has another type than the contract's.
    pub(crate) fn of(
        &self,
        store: &mut Store<Guest>,
        instance: &Instance,
    ) -> wasmtime::Result<TypedFunc<P, R>> {
        instance.get_typed_func(store, self.index)
    }

    fn check_type(&self, store: &mut Store<Guest>, instance: &Instance) -> Result<(), WrongExport> {
        let checked = self.of(store, instance).map(drop);
        checked.map_err(|error| WrongExport {
            interface: self.interface,
            detail: error.root_cause().to_string(),
        })
    }
}

type Job = Resource<JobHandle>;
type SelectImage =
    Function<(Job, exports::image_selection::Purpose), (exports::image_selection::Verdict,)>;
type SelectSiteUrl = Function<(Job,), (exports::site_url::Verdict,)>;
type DecideRetry = Function<(Job,), (exports::retry::Verdict,)>;
type DecideRetention = Function<(Job,), (exports::retention::Verdict,)>;
type CheckSettings = Function<(), (Vec<exports::settings_check::Problem>,)>;

/// The hooks that a component exports.
pub(crate) struct Exports {
    image_selection: Option<SelectImage>,
    site_url: Option<SelectSiteUrl>,
    retry: Option<DecideRetry>,
    retention: Option<DecideRetention>,
    pub(crate) settings_check: Option<CheckSettings>,
}

impl Exports {
    /// Finds the hooks of a component.
    pub(crate) fn find(component: &Component) -> Result<Self, WrongExport> {
        Ok(Self {
            image_selection: Function::find(component, "image-selection", "select-image")?,
            site_url: Function::find(component, "site-url", "select-site-url")?,
            retry: Function::find(component, "retry", "decide-retry")?,
            retention: Function::find(component, "retention", "decide-retention")?,
            settings_check: Function::find(component, "settings-check", "check-settings")?,
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
        fn check<P, R>(
            function: Option<&Function<P, R>>,
            store: &mut Store<Guest>,
            instance: &Instance,
        ) -> Result<(), WrongExport>
        where
            P: ComponentNamedList + Lower,
            R: ComponentNamedList + Lift,
        {
            function.map_or(Ok(()), |function| function.check_type(store, instance))
        }
        check(self.image_selection.as_ref(), store, instance)?;
        check(self.site_url.as_ref(), store, instance)?;
        check(self.retry.as_ref(), store, instance)?;
        check(self.retention.as_ref(), store, instance)?;
        check(self.settings_check.as_ref(), store, instance)
    }
}

/// What a policy has against its settings, as key and message.
pub(crate) fn setting_problems(
    problems: Vec<exports::settings_check::Problem>,
    guest: &Guest,
) -> Result<Vec<(String, String)>, Failure> {
    if problems.len() > PROBLEMS_MAX {
        return Err(Failure::OutputMalformed(format!(
            "{} problems",
            problems.len()
        )));
    }
    let bytes = problems.iter().map(|p| p.key.len() + p.message.len());
    guest.check_answer(bytes.sum())?;
    problems
        .into_iter()
        .map(|problem| {
            let key = short("the key of a setting", problem.key, KEY_MAX)?;
            let message = short("the problem of a setting", problem.message, REASON_MAX)?;
            Ok((key, message))
        })
        .collect()
}

/// The interfaces that the contract exports, by their names.
pub(crate) fn is_exported_interface(name: &str) -> bool {
    name == "settings-check" || Hook::ALL.iter().any(|hook| hook.as_str() == name)
}

/// One of the hooks, with what is passed beside the job.
pub(crate) trait Question: Copy + Send + 'static {
    type Verdict: Verdict;
    type Params: ComponentNamedList + Lower + Send + Sync + 'static;
    type Results: ComponentNamedList + Lift + Send + Sync + 'static;
    const HOOK: Hook;

    /// The function to call, if the component exports it.
    fn function(exports: &Exports) -> Option<&Function<Self::Params, Self::Results>>;

    /// What it is called with.
    fn params(self) -> Self::Params;

    /// What its answer means.
    fn said(results: Self::Results) -> Result<Said<Self::Verdict>, Failure>;
}

/// Which image an attempt uses.
#[derive(Clone, Copy)]
pub(crate) struct ImageSelection(pub(crate) Purpose);

impl Question for ImageSelection {
    type Verdict = Choice;
    type Params = (Job, exports::image_selection::Purpose);
    type Results = (exports::image_selection::Verdict,);
    const HOOK: Hook = Hook::ImageSelection;

    fn function(exports: &Exports) -> Option<&SelectImage> {
        exports.image_selection.as_ref()
    }

    fn params(self) -> Self::Params {
        use exports::image_selection::Purpose as Asked;
        let purpose = match self.0 {
            Purpose::Start => Asked::Start,
            Purpose::Prefetch => Asked::Prefetch,
        };
        (Guest::job(), purpose)
    }

    fn said((answer,): Self::Results) -> Result<Said<Choice>, Failure> {
        use exports::image_selection::Verdict;
        match answer {
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
    type Params = (Job,);
    type Results = (exports::site_url::Verdict,);
    const HOOK: Hook = Hook::SiteUrl;

    fn function(exports: &Exports) -> Option<&SelectSiteUrl> {
        exports.site_url.as_ref()
    }

    fn params(self) -> Self::Params {
        (Guest::job(),)
    }

    fn said((answer,): Self::Results) -> Result<Said<Choice>, Failure> {
        use exports::site_url::Verdict;
        match answer {
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
    type Params = (Job,);
    type Results = (exports::retry::Verdict,);
    const HOOK: Hook = Hook::Retry;

    fn function(exports: &Exports) -> Option<&DecideRetry> {
        exports.retry.as_ref()
    }

    fn params(self) -> Self::Params {
        (Guest::job(),)
    }

    fn said((answer,): Self::Results) -> Result<Said<RetryVerdict>, Failure> {
        use exports::retry::Verdict;
        match answer {
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
    type Params = (Job,);
    type Results = (exports::retention::Verdict,);
    const HOOK: Hook = Hook::Retention;

    fn function(exports: &Exports) -> Option<&DecideRetention> {
        exports.retention.as_ref()
    }

    fn params(self) -> Self::Params {
        (Guest::job(),)
    }

    fn said((answer,): Self::Results) -> Result<Said<RetentionVerdict>, Failure> {
        use exports::retention::Verdict;
        match answer {
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
