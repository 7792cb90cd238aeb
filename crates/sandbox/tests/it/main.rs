//! The sandbox as its clients see it.

mod api;
mod controllers;
mod faults;
mod lab;
mod our_resources;
mod process;
mod resources;
mod workloads;
