"""The demo: a catalogue, and a simulator that fulfils the orders."""
