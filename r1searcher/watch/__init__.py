"""What is watched while a stage trains: rules over its metrics, asked after each step."""
