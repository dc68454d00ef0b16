"""Who sells credits: their APIs, and the ways to pay them."""
