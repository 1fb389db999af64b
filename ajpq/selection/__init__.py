"""Which candidates survive: judged on as many images as it takes, the best trained in full."""
