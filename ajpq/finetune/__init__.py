"""Fine-tuning: recipes, scaled gradients, distillation, the loop, from a policy to weights."""
