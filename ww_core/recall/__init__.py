"""Finding the episodes that answer a query: candidates, fusion, rerank, hierarchy."""
