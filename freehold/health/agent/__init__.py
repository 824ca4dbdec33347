"""The agent: a process that reads its node, runs the probes, follows incidents and reports to the controller. May import all of health."""
