/** The page: styles, the cache of answers, and the application. */
import './styles/index.css';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { ApiError } from './api/http.ts';
import { App } from './app.tsx';
import { applyStoredTheme } from './components/theme.tsx';

applyStoredTheme();

const client = new QueryClient({
  defaultOptions: {
    queries: {
      // What the server refuses, it refuses again.
      retry: (failures, error) => failures < 2 && error instanceof ApiError && error.status === 0,
      staleTime: 1_000,
    },
  },
});

const root = document.getElementById('root');
if (root === null) throw new Error('the page has no root element');
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={client}>
      <App />
    </QueryClientProvider>
  </StrictMode>,
);
