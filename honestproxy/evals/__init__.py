"""Does it help, and what does it cost: arms that answer the same questions, judged and compared."""
