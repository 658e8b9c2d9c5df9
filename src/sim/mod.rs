//! A cloud in a box.
pub mod alibaba;
pub mod baidu;
pub mod canon;
