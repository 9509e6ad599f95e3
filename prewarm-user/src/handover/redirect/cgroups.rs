//! The cgroups whose programs take part: attached, seen to stay so, and who is left out.

use std::{
    fs,
    os::linux::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::RedirectError;
use crate::{
    config::HandoverSettings,
    kernel::{Cgroup, ONLY_THIS, RedirectAttachment, RedirectHooks, RedirectRules, cgroup_mount},
};

/// The rules that settings make, with this process left out.
///
/// # Errors
/// When a cgroup isn't there, or can't be told from others.
pub fn rules(settings: &HandoverSettings) -> Result<RedirectRules, RedirectError> {
    let mut excluded_cgroups = Vec::new();
    for path in &settings.redirect.exclude_cgroups {
        let cgroup = Cgroup::open(path).map_err(|source| RedirectError::Cgroup { path: path.clone(), source })?;
        let level = cgroup.level().ok_or_else(|| RedirectError::Level { path: path.clone() })?;
        excluded_cgroups.push((cgroup.id(), level));
    }
    let own_process = is_in_first_pid_namespace().then(std::process::id);
    if own_process.is_none() {
        // Our number here isn't the one that the kernel programs see. A container has a cgroup, which has one.
        excluded_cgroups.push((own_cgroup().ok_or(RedirectError::Own)?, ONLY_THIS));
    }
    Ok(RedirectRules {
        uids: settings.uids.clone(),
        exclude_uids: settings.exclude_uids.clone(),
        excluded_cgroups,
        own_process,
    })
}

/// `PROC_PID_INIT_INO` of linux/proc_ns.h.
const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;

fn is_in_first_pid_namespace() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.st_ino() == FIRST_PID_NAMESPACE)
}

/// The number of this process's cgroup, unless that is the root of all.
fn own_cgroup() -> Option<u64> {
    let mount = cgroup_mount()?;
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let id = Cgroup::open(&mount.join(path)).ok()?.id();
    (id != 1).then_some(id)
}

/// Where the programs are, and where they should be.
#[derive(Debug)]
pub(super) struct Attachments {
    hooks: RedirectHooks,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// None while the cgroup isn't there.
    attached: Option<RedirectAttachment>,
}

impl Attachments {
    pub(super) fn attach(hooks: RedirectHooks, paths: &[PathBuf]) -> Result<Self, RedirectError> {
        let mut places = Vec::with_capacity(paths.len());
        for path in paths {
            places.push(Place { path: path.clone(), attached: Some(attach(&hooks, path)?) });
        }
        Ok(Self { hooks, places })
    }

    /// Attaches again where a cgroup is another one than before, or something took our programs off.
    pub(super) fn mend(&mut self) {
        for place in &mut self.places {
            let path = place.path.display();
            if let Some(attached) = &place.attached {
                if self.hooks.runs(attached) {
                    continue;
                }
                tracing::warn!("the programs of the redirect no longer run at the cgroup {path}");
                place.attached = None;
            }
            if !place.path.exists() {
                continue;
            }
            match attach(&self.hooks, &place.path) {
                Ok(attached) => {
                    tracing::info!("the programs of the redirect run at the cgroup {path} again");
                    place.attached = Some(attached);
                }
                Err(error) => tracing::warn!(%error, "the programs of the redirect don't run at the cgroup {path}"),
            }
        }
    }

    /// Redirects nothing more; who was redirected goes on.
    pub(super) fn stop_redirecting(&mut self) {
        for attached in self.places.iter_mut().filter_map(|place| place.attached.as_mut()) {
            attached.stop_redirecting();
        }
    }

    /// Takes all programs off.
    pub(super) fn detach(&mut self) {
        self.places.clear();
    }
}

fn attach(hooks: &RedirectHooks, path: &Path) -> Result<RedirectAttachment, RedirectError> {
    let cgroup = Cgroup::open(path).map_err(|source| RedirectError::Cgroup { path: path.to_owned(), source })?;
    Ok(hooks.attach(cgroup)?)
}
