"""The functions of type DenoiseFn: trained networks and closed forms."""
