"""The engine and the frame parser under bytes that nobody meant: see fuzz_engine.c. `make fuzz` goes on for longer."""
