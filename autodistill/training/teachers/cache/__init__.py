"""Teacher outputs for views of the images, stored in files that several processes share."""
