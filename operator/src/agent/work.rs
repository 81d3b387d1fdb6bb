//! What SIS asks for, run as pods, and what became of it, told to SIS.

mod book;
mod cause;
mod launch;
mod message;
mod pod;
mod request;
