"""What HyenaDNA is compared with."""
