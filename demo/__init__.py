"""The demo: a catalogue to look at, and somebody who fulfils the orders."""
