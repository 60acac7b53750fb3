"""How messages get from one rank to another: transports, the lanes over them, and what is sent."""
