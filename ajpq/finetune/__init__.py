"""Fine-tuning: recipes, position-based scaled gradients, distillation, the training loop."""
