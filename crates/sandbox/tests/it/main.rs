//! The sandbox as its clients see it.

mod api;
mod controllers;
mod process;
