//! Integration tests of `llm-stream-bench`. The library is empty: the tests are targets of their own.
