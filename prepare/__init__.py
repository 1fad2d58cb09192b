"""Any CNN made ready for split inference: `tidesplit prepare`. Needs torch."""
