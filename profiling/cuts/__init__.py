"""Legal cuts of any `torch.nn.Module`."""
