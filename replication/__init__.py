"""The paper's experiments with `lib`: what is measured, kept, drawn and judged."""
