"""Pure functions of a finished trajectory: answer metrics, format rules, rewards and their named recipes."""
