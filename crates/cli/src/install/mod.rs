//! Installing and uninstalling: the objects of an installation, the rights of its processes, the end of its finalizers.

pub mod completions;
pub mod manifests;
mod names;
pub mod rbac;
mod registrations;
pub mod release;
mod roles;
mod workloads;
