"""The protocols that come with the package, one module each: nothing else knows their tags."""
