"""What a bulk request needs: the request, its objects, the queue, verification."""
