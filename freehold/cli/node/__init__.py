"""Commands on a machine: engine, model, doctor, health. May import terminal."""
