"""One paper idea per file: equations first, plumbing after."""
