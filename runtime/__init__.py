"""What any service process of the shop needs; it knows neither service."""
