"""What is proven of the whole: models, simulation, kills, sabotage, fuzzing."""
