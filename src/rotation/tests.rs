//! Tables over the brain: entries in, steps out.
