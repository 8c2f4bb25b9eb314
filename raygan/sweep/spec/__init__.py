"""What is asked: the YAML, its sections and checks, and the plan of cells and trials."""
