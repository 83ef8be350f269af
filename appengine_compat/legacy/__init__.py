"""What old code sees, reached as ``google.appengine`` and by no other name."""
