"""The gateway's processes as their parent sees them: messages, one worker, all workers, the listener. May import everything in the gateway."""
