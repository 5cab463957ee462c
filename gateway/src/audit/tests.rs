//! The log as a whole: what is written is read back, whatever happens to it in between.

mod chain;
mod writing;
