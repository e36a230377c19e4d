"""What brings the events of orders to those who follow them."""
