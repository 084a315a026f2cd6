//! Benchmarks, always beside the C implementation.
