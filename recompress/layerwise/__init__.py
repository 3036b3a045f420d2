"""Layer by layer: what a layer receives, in what memory, and what can be learned of it, shared by the methods that calibrate."""
