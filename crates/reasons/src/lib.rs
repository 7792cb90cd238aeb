//! Why each object has the replicas it has: the last decisions and what became of them, kept in a bounded [`Ring`], and
//! told as a [`Report`] for programs and as an [`Explanation`] for people.
//!
//! * [`Ring`] takes in the operator's observations. It is bounded per object and in all.
//! * [`Reasons`] answers for an operator: paths in, JSON out. Whoever serves it brings the transport.
//! * [`explain`](explain()) turns a report, and what a user may see of the cluster besides, into an explanation; [`text`]
//!   and [`table`] write it down.
//!
//! Absent on purpose: reasons of its own. What decides is in the engine, and comes here with the decision.

mod answer;
mod explain;
mod gather;
mod openapi;
mod past;
mod report;
mod ring;
pub mod table;
pub mod text;
mod words;

pub use answer::{Answer, Reasons, object_path, path_of_list};
pub use explain::{Workload, Writer, explain};
pub use openapi::schemas;
pub use report::{
    Author, Change, Condition, Decision, Detail, Explanation, Failure, FallbackSeen, GROUP, Hpa, HpaCondition,
    HpaMetric, KIND, LIST_KIND, Metadata, MetricSeen, PLURAL, Page, Problem, Report, Step, Target, Trigger, Trouble,
    Unchanged, VERSION, WriteSeen,
};
pub use ring::{Limits, Ring, TraceId};
